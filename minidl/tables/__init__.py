"""Tables in text files, as the numbers that a network takes.

``text_file`` reads a file as text, and says what it is if it is none. ``reading`` splits the text
into columns; it is the only module that imports pandas. ``words`` tells numbers, dates and missing
entries from words. ``encoders`` turn a column of numbers, categories or dates into inputs of a
network, as learned from some rows. ``features`` chooses an encoder for every column, or leaves the
column out, ``target`` reads the column that is to be predicted, and ``splitting`` sets rows aside.
"""
