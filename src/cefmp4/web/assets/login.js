"use strict";
const message = document.getElementById("message");
const token = document.getElementById("token");

function enter() {
  location.replace(location.pathname === "/login" ? "/" : location.href);
}
async function logIn(event) {
  event.preventDefault();
  message.textContent = "…";
  try {
    const answer = await fetch("/api/session", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ token: token.value }),
    });
    if (answer.ok) return enter();
    message.textContent = answer.status === 401 ? "This is not the token." : "Please try again in a moment.";
  } catch {
    message.textContent = "CefMP4 does not answer.";
  }
  token.select();
}
async function look() {
  // A link from another site comes without the cookie; once here, it counts again.
  const told = await (await fetch("/api/session")).json();
  if (told.logged_in && sessionStorage.getItem("entered") !== location.href) {
    sessionStorage.setItem("entered", location.href);
    enter();
  }
}
document.getElementById("login").addEventListener("submit", logIn);
look().catch(() => {});
