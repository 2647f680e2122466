// What is wrong with a page in the browser, in words, and the figures in which nothing is drawn.
({
  layout: () => {
  const wrong = [], wide = document.documentElement.clientWidth;
  const own = element => element.closest('.scroll, .tall, pre, details:not([open]) > :not(summary)');
  const name = element => `${element.tagName}.${element.className.baseVal ?? element.className}: `
    + (element.textContent || '').trim().slice(0, 60);
  if (document.documentElement.scrollWidth > wide) wrong.push('the page scrolls sideways');
  for (const element of document.body.querySelectorAll('*')) {
    if (own(element) && !element.matches('.scroll, .tall, pre')) continue;
    const box = element.getBoundingClientRect();
    if (!box.width && !box.height) continue;
    if (element.matches('.size')) continue;
    if (box.right > wide + 1 || box.left < -1) wrong.push(`past the page: ${name(element)}`);
    const text = [...element.childNodes].some(x => x.nodeType === 3 && x.textContent.trim());
    if (text && element.clientWidth && !element.matches('pre')
        && element.scrollWidth > element.clientWidth + 1) wrong.push(`cut: ${name(element)}`);
  }
  for (const ticks of document.querySelectorAll('.xticks, .yticks, .ticks')) {
    const boxes = [...ticks.querySelectorAll('span:not(.size)')]
      .filter(x => getComputedStyle(x).visibility === 'visible').map(x => x.getBoundingClientRect());
    for (const [i, a] of boxes.entries()) for (const b of boxes.slice(i + 1))
      if (a.left < b.right + 3 && b.left < a.right + 3 && a.top < b.bottom - 2 && b.top < a.bottom - 2)
        wrong.push(`ticks cover each other: ${name(ticks)}`);
  }
  return wrong;
},
  empty: () => [...document.querySelectorAll('figure')].filter(figure => {
  const drawn = [...figure.querySelectorAll('svg circle, svg rect, svg path, svg line, table.heat td')];
  const seen = drawn.filter(x => { const b = x.getBoundingClientRect(); return b.width + b.height > 2; });
  const frames = [...figure.querySelectorAll('svg.plot, td.bar > svg')];
  const flat = frames.some(x => { const b = x.getBoundingClientRect(); return b.width < 40 || b.height < 20; });
  return !figure.closest('details:not([open])') && (!seen.length || !frames.length || flat);
}).map(figure => figure.querySelector('h3').textContent)
})
