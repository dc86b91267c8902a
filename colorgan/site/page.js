// What happens on the page. Photos are opened, tinted and saved by worker.js.

const $ = (selector, root = document) => root.querySelector(selector);
const cards = new Map(), status = $('#status'), worker = begin();
function say(text) { status.textContent = text; }

/** Starts worker.js out of a blob, because then the Content-Security-Policy of the page is the worker's, too; a browser that cannot do this gets the file. */
async function begin() {
  const file = new URL('worker.js', document.baseURI), start = url => new Worker(url, {type: 'module', name: location.search});
  const blob = URL.createObjectURL(new Blob([`import ${JSON.stringify(file.href)};`], {type: 'text/javascript'}));
  const first = start(blob), fits = await new Promise(resolve => {
    first.onmessage = () => resolve(true);
    first.onerror = () => resolve(false);
  });
  const worker = fits ? first : start(file);
  worker.onmessage = ({data}) => hear(data);
  worker.onerror = () => say('This browser is too old for this page: it needs one of the last two years.');
  return worker;
}
const send = async message => (await worker).postMessage(message);

/** Shows files on cards of their own and sends them to be colorized. */
function add(files) {
  for (const file of files) {
    const id = crypto.randomUUID?.() ?? String(Math.random()), card = $('#card').content.cloneNode(true).firstElementChild;
    const look = {strength: 1, hints: []};
    cards.set(id, {card, file, busy: true, wanted: look, painted: look});
    wire(id, card, file);
    $('#photos').prepend(card);
    send({job: 'open', id, file});
  }
  if (files.length) $('#photos').scrollIntoView({behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth', block: 'start'});
}

function wire(id, card, file) {
  const before = $('.before', card), name = file.name || 'photo';
  $('h2', card).textContent = name;
  before.src = URL.createObjectURL(file);
  before.alt = `${name} as it was`;
  $('.after', card).alt = `${name} in color`;
  before.onerror = () => before.removeAttribute('src');
  $('.cut', card).oninput = e => $('.pair', card).style.setProperty('--cut', `${e.target.value}%`);
  $('.strength', card).oninput = e => {
    $('output', card).textContent = `${Math.round(e.target.value * 100)} %`;
    change(id, {strength: +e.target.value});
  };
  $('.place', card).onclick = () => place(card, !card.classList.contains('placing'));
  $('.aim', card).onclick = e => hint(id, e.detail ? fraction(e) : cross(card));
  $('.aim', card).onkeydown = e => steer(card, e);
  $('.save', card).onclick = () => save(id);
  $('.close', card).onclick = () => close(id);
}

/** Asks for another look; while one is being applied, only the newest one waits. */
function change(id, some) {
  const c = cards.get(id);
  c.wanted = {...c.wanted, ...some};
  if (c.busy) return;
  c.busy = true;
  c.painted = c.wanted;
  send({job: 'repaint', id, look: c.wanted});
}

/** Begins or ends to place colors: a click on the photo, or Enter at the cross, is a hint. */
function place(card, on) {
  const aim = $('.aim', card);
  card.classList.toggle('placing', on);
  $('.place', card).setAttribute('aria-pressed', on);
  aim.hidden = $('.help', card).hidden = $('.marks', card).hidden = !on;
  if (!on) return $('.place', card).focus();
  aim.focus({preventScroll: true});
  $('.pair', card).scrollIntoView({block: 'nearest'});
}

/** Where a click on the photo is: shares of its width and height. */
function fraction({clientX, clientY, currentTarget}) {
  const box = currentTarget.getBoundingClientRect();
  return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
}

/** Where the cross is. */
const cross = card => ['--x', '--y'].map(k => (parseFloat($('.aim', card).style.getPropertyValue(k)) || 50) / 100);

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function steer(card, e) {
  if (e.key === 'Escape') return place(card, false);
  if (!ARROWS[e.key]) return;
  e.preventDefault();
  const step = e.shiftKey ? 10 : 1, [x, y] = cross(card).map((v, i) => Math.min(99.9, Math.max(.1, Math.round(100 * v) + step * ARROWS[e.key][i])));
  $('.aim', card).style.setProperty('--x', `${x}%`);
  $('.aim', card).style.setProperty('--y', `${y}%`);
  say(`The cross is ${Math.round(x)} % from the left and ${Math.round(y)} % from the top.`);
}

/** Adds the chosen color where somebody clicked. */
function hint(id, [x, y]) {
  const c = cards.get(id), pixel = (share, n) => Math.min(n - 1, Math.max(0, Math.floor(share * n)));
  const added = {x: pixel(x, c.width), y: pixel(y, c.height), colour: $('.colour', c.card).value};
  rehint(id, [...c.wanted.hints, added]);
  say(`The color ${added.colour} is at ${added.x}, ${added.y}.`);
}

/** Shows these hints, on the photo and in a list, and colorizes with them. */
function rehint(id, hints) {
  const c = cards.get(id), marks = $('.marks', c.card), list = $('.placed', c.card);
  marks.replaceChildren(...hints.map((h, i) => {
    const mark = document.createElement('i');
    mark.textContent = i + 1;
    mark.style.left = `${100 * (h.x + .5) / c.width}%`;
    mark.style.top = `${100 * (h.y + .5) / c.height}%`;
    mark.style.background = h.colour;
    return mark;
  }));
  list.replaceChildren(...hints.map((h, i) => {
    const item = $('#hint').content.cloneNode(true).firstElementChild, colour = $('input', item), remove = $('button', item);
    $('span', item).textContent = `${h.x}, ${h.y}`;
    colour.value = h.colour;
    colour.setAttribute('aria-label', `Color ${i + 1}`);
    colour.oninput = () => { h.colour = marks.children[i].style.background = colour.value; change(id, {}); };
    remove.setAttribute('aria-label', `Remove color ${i + 1}`);
    remove.onclick = () => {
      rehint(id, hints.filter(other => other !== h));
      ($('button', list) ?? $('.place', c.card)).focus();
      say(`Color ${i + 1} is removed.`);
    };
    return item;
  }));
  change(id, {hints});
}

function save(id) {
  const c = cards.get(id);
  $('.save', c.card).disabled = true;
  say(`Colorizing ${c.file.name} at its full size…`);
  send({job: 'save', id, look: c.wanted});
}

function close(id) {
  const {card} = cards.get(id);
  for (const img of card.querySelectorAll('img')) URL.revokeObjectURL(img.src);
  card.remove();
  cards.delete(id);
  send({job: 'close', id});
  $('#choose').focus();
}

function show(c, id, {after, width, height, by, seconds}) {
  const img = $('.after', c.card), old = img.src;
  img.src = URL.createObjectURL(after);
  if (old) URL.revokeObjectURL(old);
  if (width) {
    Object.assign(c, {width, height});
    $('.pair', c.card).style.setProperty('--shape', `${width} / ${height}`);
    $('.facts', c.card).textContent = `${width} × ${height}, colorized in ${seconds.toFixed(1)} s by ${by}`;
    c.card.dataset.state = 'done';
    say(`${c.file.name} is in color.`);
  }
  c.busy = false;
  if (c.wanted !== c.painted) change(id, {});
}

function offer(c, blob) {
  const a = document.createElement('a'), stem = c.file.name.replace(/\.[^.]*$/, '');
  a.href = URL.createObjectURL(blob);
  a.download = `${stem}-color.${blob.type === 'image/jpeg' ? 'jpg' : 'png'}`;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60_000);
  $('.save', c.card).disabled = false;
  say(`${a.download} is saved.`);
}

function fail(c, error) {
  const known = c.card.dataset.state === 'done';
  if (!known) c.card.dataset.state = 'failed';
  $('.problem', c.card).textContent = error;
  $('.save', c.card).disabled = false;
  c.busy = false;
  say(error);
}

/** What the worker says. */
function hear({id, progress, kept, error, saved, ...painted}) {
  if (kept) return keep();
  if (progress !== undefined) return say(progress < 1 ? `Fetching the network, once: ${Math.round(progress * 100)} %` : 'Colorizing…');
  const c = cards.get(id);
  if (!c) return;
  if (error) fail(c, error);
  else if (saved) offer(c, saved);
  else show(c, id, painted);
}

/** Says that the page works without a network, once the service worker has it. */
async function keep() {
  if (!navigator.serviceWorker) return;
  await navigator.serviceWorker.ready;
  $('#offline').hidden = false;
}
navigator.serviceWorker?.register('sw.js').catch(() => {});

const isPhoto = file => file.type.startsWith('image/');
$('#choose').onchange = e => { add([...e.target.files]); e.target.value = ''; };
$('#folder').onchange = e => {
  const all = [...e.target.files], photos = all.filter(isPhoto);
  add(photos);
  if (photos.length < all.length) say(`${all.length - photos.length} other files were left alone.`);
  e.target.value = '';
};
$('#sample').onclick = async () => add([new File([await (await fetch('sample.jpg')).blob()], 'sample.jpg', {type: 'image/jpeg'})]);
for (const kind of ['dragover', 'dragenter']) addEventListener(kind, e => { e.preventDefault(); document.body.classList.add('over'); });
addEventListener('dragleave', e => { if (!e.relatedTarget) document.body.classList.remove('over'); });
addEventListener('drop', e => { e.preventDefault(); document.body.classList.remove('over'); add([...e.dataTransfer.files]); });
addEventListener('paste', e => add([...e.clipboardData.files]));
$('#hero .cut').oninput = e => $('#hero .pair').style.setProperty('--cut', `${e.target.value}%`);
