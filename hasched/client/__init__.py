"""The client of the HTTP API: `sync.Client` for scripts and the CLI, `aio.AsyncClient` for services.

Both find a manager that answers, retry what is safe to retry with the same submission id, and raise the errors of
`hasched.model.errors`. Neither module is imported here, so that the CLI never pays for aiohttp.
"""
