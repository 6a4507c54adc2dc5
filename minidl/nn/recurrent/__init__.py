"""Recurrent cells and layers: RNN, LSTM and GRU."""
