// Colorizes a photo with the one graph that `colorgan export light --onnx photo.onnx` writes.
// dotnet run photo.onnx grey.jpg colour.png     (dotnet add package Microsoft.ML.OnnxRuntime; dotnet add package SixLabors.ImageSharp)
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;
using SixLabors.ImageSharp;
using SixLabors.ImageSharp.PixelFormats;
using SixLabors.ImageSharp.Processing;

using var session = new InferenceSession(args[0]);
using var image = Image.Load<Rgb24>(args[1]);
image.Mutate(i => i.AutoOrient());
var bytes = new byte[image.Width * image.Height * 3];
image.CopyPixelDataTo(bytes);
var photo = new DenseTensor<byte>(bytes, new[] { image.Height, image.Width, 3 }); // rows, columns, red green blue
using var results = session.Run(new[] { NamedOnnxValue.CreateFromTensor("photo", photo) });
var colour = results.First().AsTensor<byte>().ToArray();
using var painted = Image.LoadPixelData<Rgb24>(colour, image.Width, image.Height);
painted.Save(args[2]);
