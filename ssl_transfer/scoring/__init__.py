"""From a model to numbers: features, measures with their protocol, tables. Import the file that has what you need."""
