"""What lies elsewhere: datastores, models and job outputs of Azure Machine Learning, and URLs.

Addresses are read by :mod:`olivine.storage.addresses`, opened by :mod:`olivine.storage.opening`, moved by
:mod:`olivine.storage.transfer`, and kept in the Store by :mod:`olivine.storage.fetching`. Libraries of clouds are
imported where an address needs them, and nowhere else.
"""
