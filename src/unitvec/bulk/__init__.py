"""Files of any number of rows to files of their vectors.

::

    inputs ─> sources ─> Window ─> embed ─> Part ─> work ─> outputs
    files     rows       rows that run together     folder   one file

A :class:`~unitvec.bulk.window.Window` is some thousand rows of one file. What embeds its texts is any
:data:`~unitvec.bulk.window.Embed`: this process (:mod:`~unitvec.bulk.local`), servers
(:mod:`~unitvec.bulk.servers`), or actors elsewhere. A window needs nothing of the others, so that they may be
done in any order and anywhere; its :class:`~unitvec.bulk.window.Part` is kept at once in a
:class:`~unitvec.bulk.work.Work`, and when all are there they become the output.
"""
