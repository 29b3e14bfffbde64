"""The HTTP API of a replica: one file a noun.  Owns: shapes of calls and answers.  Must not know: consensus."""
