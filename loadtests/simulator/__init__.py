"""A modelled cluster under modelled traffic, scaled by the real policy: `loadtests.simulate`.

Fixed steps, tokens as a fluid: a day of a thousand GPUs is some hundred thousand steps, whatever
the number of its requests. Latency is exact for that fluid: the time between a token's arrival and
the moment when as many have left as had come before it.
"""
