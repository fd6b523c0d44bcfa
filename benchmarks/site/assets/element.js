// Makes an element of a page: its name, what it contains (text, elements, or a list of them) and its attributes.
window.element = (name, content = "", attributes = {}) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...[content].flat());
  return made;
};
