"use strict";
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const one = selector => document.querySelector(selector);
const made = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};

// Light or dark: as the system has it, until the switch is used.
const root = document.documentElement, theme = one("#theme");
const remembered = value => {
  try {
    if (value) localStorage.setItem("gluon_ft-theme", value);
    return localStorage.getItem("gluon_ft-theme");
  } catch (error) { return null; }  // where a page may store nothing
};
const isDark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const themed = () => {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `Show in ${isDark() ? "light" : "dark"} colours`);
  document.dispatchEvent(new Event("themed"));
};
if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();
theme.hidden = false;
theme.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; remembered(root.dataset.theme); themed(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themed);
