"""Upload an exported folder to the Hugging Face Hub."""

from pathlib import Path

from ssl_transfer.errors import one_line


def check_name(name: str) -> None:
    """Refuse a name that the Hub would refuse, before any work is done.

    Raises:
        ValueError: the name is not of the form ``owner/model``.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ValueError(f"{name!r} is not a name on the Hub: write owner/model, such as me/my-student") from None


def push(folder: Path, name: str) -> str:
    """Upload ``folder`` as the model ``name``, in a new private repository if there is none; says where it is.

    Raises:
        ValueError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="ssl-transfer")
    try:
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message="Export from ssl-transfer")
    except Exception as error:  # of httpx or of requests, by the version of huggingface_hub, or its own
        raise ValueError(
            f"{folder} is written, but could not be uploaded as {name} ({one_line(error, longest=200)}): "
            f"log in with `hf auth login` and upload it with `hf upload {name} {folder}`"
        ) from error
    return f"Uploaded to {url}; a new repository is private until you choose a licence and make it public."
