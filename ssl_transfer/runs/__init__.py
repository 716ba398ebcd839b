"""Run folders: which one belongs to a recipe, what is in it, and who may write into it. Loads no torch."""

from ssl_transfer.runs.folder import RunInfo as RunInfo
from ssl_transfer.runs.folder import claim as claim
from ssl_transfer.runs.folder import exclusive_folder as exclusive_folder
from ssl_transfer.runs.folder import final_scores as final_scores
from ssl_transfer.runs.folder import folder_of as folder_of
from ssl_transfer.runs.folder import has_scores as has_scores
from ssl_transfer.runs.folder import is_complete as is_complete
from ssl_transfer.runs.folder import read_info as read_info
from ssl_transfer.runs.folder import read_recipe as read_recipe
from ssl_transfer.runs.folder import score_settings as score_settings
from ssl_transfer.runs.folder import write_info as write_info
from ssl_transfer.runs.locks import claimed as claimed
from ssl_transfer.runs.locks import is_free as is_free
from ssl_transfer.runs.scores_file import RunScores as RunScores
from ssl_transfer.runs.scores_file import as_read as as_read
from ssl_transfer.runs.scores_file import read_scores as read_scores
from ssl_transfer.runs.scores_file import write_scores as write_scores
