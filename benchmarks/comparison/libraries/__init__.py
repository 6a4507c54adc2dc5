"""A module for each library, with a function for each suite that it supports (see ``..``).

PyTorch's convolutional networks have a module of their own.
"""
