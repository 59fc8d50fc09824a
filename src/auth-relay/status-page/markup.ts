/** HTML that is safe to send: made by `html`, which escapes everything else that stands in it. */
export class Markup {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/**
 * What may stand in a template: texts and numbers are escaped, markup is not, of lists each item;
 * undefined and false are nothing.
 */
export type Part = string | number | Markup | undefined | false | readonly Part[]

/**
 * A template of HTML. No text that is put in, a login name from outside among them, can become an
 * element or an attribute.
 */
export const html = (strings: TemplateStringsArray, ...parts: readonly Part[]): Markup =>
  new Markup(strings.map((string, index) => string + (index < parts.length ? render(parts[index]) : '')).join(''))

function render(part: Part): string {
  if (part === undefined || part === false) return ''
  if (part instanceof Markup) return part.text
  if (typeof part === 'object') return part.map(render).join('')
  return String(part).replaceAll(/[&<>"'`]/g, character => `&#${character.charCodeAt(0)};`)
}
