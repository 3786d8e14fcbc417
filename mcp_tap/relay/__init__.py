"""The relay process: listens, splices bytes, answers hardly anything itself, and copies what it saw to the recorder.

Imports the standard library, uvloop and three modules of plain words: whatever goes wrong with stores, decoders or
pages, it goes wrong in another process.
"""
