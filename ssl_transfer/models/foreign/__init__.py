"""Teachers from other tools' checkpoints: files read without running code, every weight accounted for."""
