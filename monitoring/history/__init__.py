"""History on disk: hourly blocks of compressed columns, and a log that brings the hours in memory back after a crash.

``codec`` packs columns, ``block`` is one hour in a file, ``index`` finds series in it, ``wal`` logs what is not in a
block yet, ``history`` keeps the blocks, and ``joined`` is the store that answers over memory and disk together.
"""
