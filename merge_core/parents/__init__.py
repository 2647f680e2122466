"""A recipe's model references in, opened parents out: config, names, shapes, tensors when asked.

Out comes what ``protocol.Parent`` says, be it a folder or a folder with an adapter.
"""
