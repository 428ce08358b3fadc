// Photographs as pixels. Decoding is asynchronous, so those last seen are kept.

const PHOTOGRAPHS_KEPT = 250;
const missing = new Set(report.missing);
const photographs = new Map(); // image -> promise of its ImageData, the oldest first

// The pixels of an image; null where its photograph is missing.
function photographOf(image) {
  if (missing.has(image)) return Promise.resolve(null);
  if (!photographs.has(image)) {
    photographs.set(image, decoded(image));
    if (photographs.size > PHOTOGRAPHS_KEPT) photographs.delete(photographs.keys().next().value);
  }
  return photographs.get(image);
}

async function decoded(image) {
  const shard = await shardOf(image);
  const file = new Image();
  file.src = `data:image/webp;base64,${shard.photographs[image % report.shard]}`;
  await file.decode();
  return pixelsOf(file);
}

const scratch = document.createElement("canvas").getContext("2d", { willReadFrequently: true });

function pixelsOf(picture) {
  const { naturalWidth: width, naturalHeight: height } = picture;
  scratch.canvas.width = width;
  scratch.canvas.height = height;
  scratch.drawImage(picture, 0, 0);
  return scratch.getImageData(0, 0, width, height);
}
