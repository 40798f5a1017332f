"""Batches: a file of lines in, a file of vectors out, whatever dies in between.

A folder, which several gateways may share, has everything: `batches.db` what there is and who works
on it, and a folder of each batch its lines and its results. A batch is cut into pieces, and a piece
is one request to the service, as `bulk` work of the tenant's own.

What happens once, and why:

- One gateway works on a batch, by a lease that it renews. A dead one's runs out, and another goes
  on with the pieces that are not done.
- A line is billed under an id made of its batch and its number, so that one that is asked again
  after a crash is in the ledger once.
- Results are whole files of a piece. They are on the disk before the piece is billed, and it counts
  as done when the bill would outlive a kill. Nothing is appended to, so nothing can be torn.
"""
