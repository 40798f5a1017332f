"""What a running server costs: a closed-loop client, the raw model beside it, simulated users."""
