"""The pure core, room by room: no socket, no clock, no dice; properties where there is arithmetic."""
