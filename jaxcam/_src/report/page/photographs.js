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
  const bytes = bytesOf(shard.photographs[image % report.shard]);
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/webp" }));
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}
