"""The nouns: ids, job spec, resources and units, wire messages, views, and the error tree. Imports nothing of hasched."""
