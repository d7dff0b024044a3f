"""The world in a browser: a server over sessions, one WebSocket a user, and the page that it serves (docs/play.md)."""
