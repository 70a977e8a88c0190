"""How the routes of app.py speak HTTP: what they read, who may call them, how they answer."""
