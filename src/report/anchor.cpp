// Keeps the folder a library while it has no other source.
