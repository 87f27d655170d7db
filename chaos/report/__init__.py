"""The report of a run: one document, as JSON, as text, and as a page that needs nothing but itself."""
