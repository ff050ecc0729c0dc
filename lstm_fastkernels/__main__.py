from lstm_fastkernels.cli import main

main()
