"""What is owed and where it is written: from a request's counts to a ledger, a bill and an export.

    record -> bounded queue -> fsynced spool -> batch writer -> sink (events and hourly sums)
    sink -> exports (CloudEvents, Stripe), usage by hour or day, money

Nothing here knows a request, a tenant's file or a metrics library.
"""
