"""What a gateway takes on at once. Quotas of tenants are a room of their own."""
