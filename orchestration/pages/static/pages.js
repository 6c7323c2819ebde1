"use strict";
// The pages live in a frame of Airflow's: they take its theme, and let it go to its own pages.

const airflow = window.parent !== window ? window.parent : null;

function followTheme() {
  const root = airflow.document.documentElement;
  const take = () => {
    const dark = root.classList.contains("dark");
    const light = root.classList.contains("light");
    if (dark || light) document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  take();
  new MutationObserver(take).observe(root, { attributes: true, attributeFilter: ["class"] });
}

// A frame may not navigate the page around it. Airflow's router follows the history, as on the back button.
function openInAirflow(event) {
  const link = event.target.closest("a[data-airflow]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  airflow.history.pushState(null, "", link.href);
  airflow.dispatchEvent(new PopStateEvent("popstate", { state: null }));
}

// A run that goes on is asked for anew; what the reader has opened stays open.
async function refresh() {
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    const next = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (answer.ok && next) {
      const open = [...document.querySelectorAll("details[open]")].map((each) => each.id);
      for (const each of next.querySelectorAll("details")) each.open = open.includes(each.id);
      document.querySelector("main").replaceWith(next);
    }
  } catch { /* Airflow restarts: the next try finds it */ }
  plan();
}

function plan() {
  const seconds = Number(document.querySelector("main").dataset.refresh);
  if (seconds) setTimeout(refresh, 1000 * seconds);
}

if (airflow) {
  followTheme();
  document.addEventListener("click", openInAirflow);
}
plan();
