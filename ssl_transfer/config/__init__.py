"""The recipe: eight keys, strict, every problem of a file told at once. Imports no torch, so a typo fails in a moment.

A default is written here and nowhere else. :func:`load` reads a file, puts a teacher's recipe in the place of its path,
applies ``key.path=value`` overrides and validates; what it returns is complete, and can be saved and run by itself.
"""

from ssl_transfer.config.data import Augment as Augment
from ssl_transfer.config.data import Data as Data
from ssl_transfer.config.loading import dump as dump
from ssl_transfer.config.loading import load as load
from ssl_transfer.config.loading import load_teacher as load_teacher
from ssl_transfer.config.loading import looks_like_a_recipe as looks_like_a_recipe
from ssl_transfer.config.loading import of_mapping as of_mapping
from ssl_transfer.config.model import Model as Model
from ssl_transfer.config.problems import problems_of as problems_of
from ssl_transfer.config.problems import told as told
from ssl_transfer.config.reading import parse as parse
from ssl_transfer.config.schema import Recipe as Recipe
from ssl_transfer.config.schema import differences as differences
from ssl_transfer.config.schema import identity as identity
from ssl_transfer.config.schema import identity_hash as identity_hash
from ssl_transfer.config.training import Optim as Optim
from ssl_transfer.config.training import Train as Train
from ssl_transfer.teachers.section import Teacher as Teacher
