"""What lessons 5 to 7 let one do by hand: drag a start, click points, draw letters. A script in JavaScript for each."""
