"""The modules that stand where nn.LSTM and nn.LSTMCell stood."""
