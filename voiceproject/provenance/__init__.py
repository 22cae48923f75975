"""Marks on what is made here, and the verification of a file.

`manifest` signs and reads C2PA, with the certificate of `signer`; `marks` remembers hashes and the sound of what left,
by the numbers of `fingerprint`; `verification` says whether a file was made here, and `api` answers it.
"""
