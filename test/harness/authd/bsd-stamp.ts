/** The stamp of RFC 3164, in local time: `Mar  5 10:11:12`. */
export const bsdStamp = (at: Date = new Date()): string =>
  `${at.toString().slice(4, 7)} ${String(at.getDate()).padStart(2)} ${at.toString().slice(16, 24)}`
