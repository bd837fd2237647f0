// A file dropped anywhere on the page is taken, and the browser never leaves the page for one.

import { find } from "./dom.js";

const FIELDS = "textarea, input:not([type=file]):not([type=checkbox])"; // where a text may be dropped
const STILL = 1000; // milliseconds without a word of what is dragged after which it is gone: browsers do not always tell of its leaving

/** `taken` is called with the DataTransfer of files dropped anywhere, and of anything else dropped on the box for them. */
export function takeDrops(taken) {
  const shade = find("dropping");
  let timer;
  const show = (shown) => {
    clearTimeout(timer);
    shade.hidden = !shown;
    if (shown) timer = setTimeout(() => show(false), STILL);
  };
  const holdsFiles = ({ dataTransfer }) => dataTransfer.types.includes("Files");
  const inBox = ({ target }) => find("drop").contains(target);
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      const files = holdsFiles(event);
      show(files);
      if (!files && event.target.closest?.(FIELDS)) return; // the browser's own
      event.preventDefault();
      event.dataTransfer.dropEffect = files || inBox(event) ? "copy" : "none";
    });
  }
  addEventListener("dragleave", (event) => { if (event.relatedTarget === null) show(false); }); // out of the window
  addEventListener("drop", (event) => {
    show(false);
    if (!holdsFiles(event) && !inBox(event)) return;
    event.preventDefault();
    taken(event.dataTransfer);
  });
}
