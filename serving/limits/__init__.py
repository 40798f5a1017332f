"""What a gateway takes on: a bound on what is under way, and the quotas of tenants.

    store = open_store("redis://quotas:6379/0")
    limiter = Limiter(Guarded(store, on_error="local"))
    async with limiter.admit(tenant, limits, model, tokens, images) as admission:
        ...                                  # refused with a 429 before this line, charging nothing
    fields = rate_headers(admission.decision)

`limit` says what a plan allows, `buckets` is the arithmetic, `stores` keeps the state, `guard` says
what happens without a store, and `limiter` is what a service uses. `gate` is the process's own
bound and knows no tenants.
"""
