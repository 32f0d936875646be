"""How the parts of the screen lie, in Textual's CSS; the colours are the terminal's own."""

CSS = """
Screen { background: ansi_default; color: ansi_default; }
#panes { height: 1fr; }
#run, #background, #notice, #cover { display: none; }
#notice { height: auto; max-height: 6; text-style: bold reverse; padding: 0 1; background: ansi_default; }
#query { height: 1; }
#sign { width: 1; }
#filter, #filter:focus {
    height: 1; width: 1fr; border: none; padding: 0; background: ansi_default; color: ansi_default;
}
#picture { height: 50%; }
#bottom { height: 1; }
.beside { border-left: solid ansi_default; }
.ascii .beside { border-left: ascii ansi_default; }
"""
