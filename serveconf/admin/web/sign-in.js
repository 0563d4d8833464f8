// The page that a one-time address opens: it keeps the session's key for this origin and goes on to the dashboard.
localStorage.setItem("serveconf-key", document.querySelector("meta[name=serveconf-key]").content);
location.replace("./");
