// What the page was built from: numbers as JSON in the document, photographs and maps in shards.

const report = JSON.parse(document.getElementById("report").textContent);
const SHARDS_KEPT = 40;

function bytesOf(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function floatsOf(base64) {
  return new Float32Array(bytesOf(base64).buffer);
}

const shards = new Map(); // number -> promise of what is in it, the oldest first

function shardOf(image) {
  const number = Math.floor(image / report.shard);
  if (!shards.has(number)) {
    const content = report.folder ? loadedShard(number) : inlineShard(number);
    shards.set(number, content.then(unpacked));
    if (shards.size > SHARDS_KEPT) shards.delete(shards.keys().next().value);
  }
  return shards.get(number);
}

async function inlineShard(number) {
  return JSON.parse(document.getElementById(`shard-${number}`).textContent);
}

const awaited = new Map(); // number -> what to do with a shard that comes

// A page from disk may not fetch, but it may run a script that hands over its data.
function loadedShard(number) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    awaited.set(number, resolve);
    script.onerror = () => reject(new Error(`${script.src} is missing`));
    script.onload = () => script.remove();
    script.src = `${encodeURIComponent(report.folder)}/${number}.js`;
    document.head.append(script);
  });
}

function jaxcamShard(number, content) { // which each of these scripts calls
  awaited.get(number)?.(content);
  awaited.delete(number);
}

function unpacked(shard) {
  return {
    photographs: shard.photographs,
    maps: shard.maps.map(bytesOf),
    ranges: shard.ranges.map(floatsOf),
  };
}

// The map of an image in its own units, {values, height, width}; null where there is none.
async function mapOf(image, set) {
  const shard = await shardOf(image);
  const [height, width] = report.sets[set].size;
  const place = image % report.shard;
  const [low, high] = shard.ranges[set].subarray(2 * place, 2 * place + 2);
  if (Number.isNaN(low)) return null;
  const bytes = shard.maps[set].subarray(place * height * width, (place + 1) * height * width);
  return { values: Float32Array.from(bytes, (b) => low + ((high - low) * b) / 255), height, width };
}

// The mean of the ranged maps of a class, in [0, 1]; null of a class with fewer than two images.
function meanOf(ownClass, set) {
  const place = report.meanClasses.indexOf(ownClass);
  if (place < 0) return null;
  const [height, width] = report.sets[set].size;
  const bytes = bytesOf(report.sets[set].means);
  const part = bytes.subarray(place * height * width, (place + 1) * height * width);
  return { values: Float32Array.from(part, (b) => b / 255), height, width };
}
