import hashlib
import os

from PIL import Image, ImageDraw, ImageFilter, ImageFont

image = Image.new("RGB", (640, 480), "navy")
draw = ImageDraw.Draw(image)
for i in range(0, 640, 20):
    draw.line((i, 0, 640 - i, 480), fill=(i % 256, 128, 200))
draw.ellipse((100, 100, 300, 300), fill="gold")
draw.text((10, 10), "text", font=ImageFont.load_default())
blurred = image.filter(ImageFilter.GaussianBlur(3)).resize((320, 240), Image.LANCZOS).rotate(30)
print(hashlib.md5(blurred.tobytes()).hexdigest())
for kind in ("png", "jpeg", "gif", "bmp", "tiff", "webp"):
    blurred.save(f"out.{kind}")
    with Image.open(f"out.{kind}") as again:
        again.load()
        print(kind, again.size, again.mode, os.path.getsize(f"out.{kind}") > 1000)
print(image.convert("L").histogram()[100:104], image.crop((0, 0, 10, 10)).getcolors())
