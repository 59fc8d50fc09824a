/**
 * The page's only script: it fetches the page again and exchanges what has changed. Without it the
 * page reloads itself.
 */
export const SCRIPT = `'use strict'
const EVERY = 5000
let busy = false
async function refresh() {
  if (busy || document.hidden) return
  busy = true
  try {
    const answer = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(10000) })
    if (!answer.ok) throw new Error(answer.statusText)
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html')
    for (const part of document.querySelectorAll('[data-live]')) {
      const next = fresh.getElementById(part.id)
      if (next !== null && next.innerHTML !== part.innerHTML) part.replaceChildren(...next.childNodes)
    }
    document.title = fresh.title
    document.body.classList.remove('stale')
  } catch {
    document.body.classList.add('stale')
  } finally {
    busy = false
  }
}
setInterval(refresh, EVERY)
document.addEventListener('visibilitychange', refresh)
`
