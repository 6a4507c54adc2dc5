"""RNN, LSTM and GRU.

``cells`` has one step of each, ``layers`` the layers over whole sequences, and ``sequence`` what
these layers share: levels, directions, lengths, and a state that carries over.
"""
