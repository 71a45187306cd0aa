// Contrast and focus of a page as a browser computes them, by WCAG 2.1: a list of what falls short.
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (text) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = "#000";
    canvas.fillStyle = text;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below, alpha = top[3]) => [0, 1, 2].map((at) => top[at] * alpha + below[at] * (1 - alpha));
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
  const ancestors = (node) => { const found = []; for (; node; node = node.parentElement) found.unshift(node); return found; };
  const background = (node) => ancestors(node).reduce((below, each) => over(rgba(getComputedStyle(each).backgroundColor), below), [255, 255, 255]);
  const opacity = (node) => ancestors(node).reduce((all, each) => all * getComputedStyle(each).opacity, 1);
  const seen = (node) => node.checkVisibility({ checkVisibilityCSS: true }) && node.getClientRects().length > 0;
  const wrong = new Map();
  let pairs = 0;
  const judge = (node, what, colour, behind, least, shade = 1) => {
    if (colour[3] * shade === 0) return; // a chart's label that another one covers is not drawn
    const found = contrast(over(colour, behind, colour[3] * shade), behind);
    pairs += 1;
    if (found < least) wrong.set(`${what} ${node.tagName}.${node.className.baseVal ?? node.className}: ${found.toFixed(2)}`, (node.textContent || node.placeholder || "").trim().slice(0, 40));
  };
  const least = (style) => parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700) ? 3 : 4.5;

  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || node.closest("script, style, noscript, option") || !seen(node)) continue;
    const style = getComputedStyle(node);
    const svg = node.namespaceURI.endsWith("svg");
    judge(node, "text", rgba(svg ? style.fill : style.color), background(node), least(style), opacity(node) * (svg ? style.fillOpacity : 1));
  }
  for (const node of document.querySelectorAll("input, select, button, textarea")) {
    if (!seen(node) || node.type === "checkbox") continue;
    const style = getComputedStyle(node);
    judge(node, node.disabled ? "disabled" : "control", rgba(style.color), background(node), 4.5, opacity(node));
    if (!node.placeholder) continue;
    const ghost = getComputedStyle(node, "::placeholder");
    judge(node, "placeholder", rgba(ghost.color), background(node), 4.5, opacity(node) * ghost.opacity);
  }
  for (const node of document.querySelectorAll(".warning")) {
    const mark = getComputedStyle(node, "::before");
    if (seen(node)) judge(node, "mark", rgba(mark.color), rgba(mark.backgroundColor), 4.5);
  }
  for (const node of document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")) {
    if (!seen(node)) continue;
    node.focus({ focusVisible: true, preventScroll: true });
    const style = getComputedStyle(node);
    if (style.outlineStyle === "none" || !parseFloat(style.outlineWidth)) wrong.set(`no ring ${node.tagName}.${node.className}`, node.id);
    else judge(node, "ring", rgba(style.outlineColor), background(node.parentElement), 3);
  }
  document.activeElement?.blur();
  return { pairs, wrong: [...wrong].map(([what, text]) => `${what} (${text})`) };
}
