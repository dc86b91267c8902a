// Colorizes a photo with the one graph that `colorgan export light --onnx photo.onnx` writes.
// node colorize.mjs photo.onnx grey.jpg colour.png     (npm install onnxruntime-node sharp)
import ort from 'onnxruntime-node';
import sharp from 'sharp';

const [graph, source, target] = process.argv.slice(2);
const session = await ort.InferenceSession.create(graph);
const {data, info} = await sharp(source).rotate().toColourspace('srgb').removeAlpha().raw().toBuffer({resolveWithObject: true});
const rgb = info.channels === 3 ? data : Uint8Array.from({length: 3 * data.length}, (_, i) => data[Math.floor(i / 3)]);
const photo = new ort.Tensor('uint8', rgb, [info.height, info.width, 3]); // bytes: rows, columns, red green blue
const colour = (await session.run({photo}))[session.outputNames[0]];
await sharp(colour.data, {raw: {width: info.width, height: info.height, channels: 3}}).toFile(target);
