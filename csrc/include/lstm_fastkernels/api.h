// What a shared library shows: nothing else is visible outside.
#pragma once

#define LSTM_FASTKERNELS_API __attribute__((visibility("default")))
