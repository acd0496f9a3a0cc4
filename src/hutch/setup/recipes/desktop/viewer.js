// The desktop in a page: as large as the window, with one clipboard for both, back after a break.
import RFB from "./novnc/core/rfb.js";

const byId = (id) => document.getElementById(id);
const address = new URL("websockify", location.href);
address.protocol = address.protocol === "https:" ? "wss:" : "ws:";

let rfb = null;
let wait = 500;

function connect() {
  byId("state").textContent = "Connecting";
  byId("screen").replaceChildren();
  rfb = new RFB(byId("screen"), address.href, { shared: true });
  rfb.resizeSession = true;
  rfb.scaleViewport = true;
  rfb.addEventListener("connect", () => {
    wait = 500;
    byId("state").textContent = "";
    rfb.focus();
    offer();
  });
  rfb.addEventListener("desktopname", (event) => {
    document.title = event.detail.name;
    byId("name").textContent = event.detail.name;
  });
  rfb.addEventListener("clipboard", (event) => {
    byId("text").value = event.detail.text;
    // Browsers let a page do this by HTTPS alone, and may ask; the box above works everywhere.
    navigator.clipboard?.writeText(event.detail.text).catch(() => {});
  });
  rfb.addEventListener("disconnect", () => {
    byId("state").textContent = "The connection is gone. Trying again";
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, 10000);
  });
}

// What the person has copied elsewhere, before they paste it on the desktop.
async function offer() {
  try {
    const text = await navigator.clipboard.readText();
    if (text && text !== byId("text").value) give(text);
  } catch {
    // Not allowed, or not asked yet.
  }
}

function give(text) {
  byId("text").value = text;
  rfb?.clipboardPasteFrom(text);
}

window.addEventListener("focus", offer);
byId("text").addEventListener("input", () => rfb?.clipboardPasteFrom(byId("text").value));
byId("clipboard").addEventListener("click", () => {
  const board = byId("board");
  board.hidden = !board.hidden;
  byId("clipboard").setAttribute("aria-expanded", String(!board.hidden));
  if (!board.hidden) byId("text").focus();
});
byId("keys").addEventListener("click", () => rfb?.sendCtrlAltDel());
byId("full").addEventListener("click", () => document.documentElement.requestFullscreen());
connect();
