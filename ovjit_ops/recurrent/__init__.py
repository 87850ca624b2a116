"""Recurrent layers: LSTM, GRU, AUGRU and RNN, cells and sequences."""
